// A client in a few lines of Go's standard library: `client NAME URL` prints one JSON line for each event, and resumes.
// `client NAME URL once` ends with the stream: status 0 if it was compressed and had a clean end.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	last, retry := "", time.Second
	for ; ; time.Sleep(retry) {
		request, _ := http.NewRequest("GET", os.Args[2], nil)
		if last != "" {
			request.Header.Set("Last-Event-ID", last)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			continue
		}
		event, lines := "message", []string{}
		scanner := bufio.NewScanner(response.Body)
		scanner.Buffer(nil, 1<<20) // its default ends a stream at the first line over 64 KB
		for scanner.Scan() {
			field, value, _ := strings.Cut(scanner.Text(), ":")
			switch value = strings.TrimPrefix(value, " "); field {
			case "id":
				last = value
			case "event":
				event = value
			case "data":
				lines = append(lines, value)
			case "retry":
				if ms, err := strconv.Atoi(value); err == nil {
					retry = time.Duration(ms) * time.Millisecond
				}
			case "":
				if len(lines) > 0 {
					line, _ := json.Marshal(map[string]string{"client": os.Args[1], "type": event, "data": strings.Join(lines, "\n"), "id": last})
					fmt.Println(string(line))
				}
				event, lines = "message", nil
			}
		}
		response.Body.Close()
		if len(os.Args) > 3 {
			if scanner.Err() != nil || !response.Uncompressed { // net/http asks for gzip itself, and checks its end
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
}
