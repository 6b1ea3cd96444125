# Sums the closing lines of several runs of pytest ("== 123 passed, 4 deselected in 56.7s =="). The first file is the output
# of all tests, the second that of the repeated ones, or empty; a repeated test's second result counts. Deselected tests
# belong to the other step or are slow, so they are left out.
BEGIN { split("failed passed skipped xfailed xpassed warning error", order) }

FILENAME == ARGV[2] && !repeated { repeated = 1; delete count["failed"]; delete count["error"] }

/^=* ?([0-9]+ [a-z]+|no tests ran).* in [0-9.]+s/ {
    gsub(/[=,]/, " ")
    for (i = 1; i < NF && $i != "in"; i++) {
        word = $(i + 1)
        sub(/s$/, "", word)     # "errors", "warnings"
        if ($i ~ /^[0-9]+$/) count[word] += $i
    }
    seconds += $(i + 1)
}

END {
    for (i = 1; i in order; i++)
        if (count[order[i]]) line = line (line ? ", " : "") count[order[i]] " " order[i]
    printf "%s in %.2fs\n", line ? line : "no tests ran", seconds
}
