// Tells in the token's field whether a token is needed, as far as the answers so far have shown.

const field = document.getElementById("token");
const known = { read: "", publish: "" };

export function learnNeed(action, status, shown) {
  if (status === 401) known[action] = "needed";
  else if (status < 300 && !shown) known[action] = "none needed";
  const needed = Object.keys(known).filter((name) => known[name] === "needed");
  if (needed.length) field.placeholder = `needed to ${needed.join(" and ")}`;
  else field.placeholder = known.read && known.publish ? "none needed" : "if one is needed";
}
