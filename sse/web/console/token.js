// The token's field. It also tells whether a token is needed, as far as the answers so far have shown.

const field = document.getElementById("token");
const known = { read: "", publish: "", manage: "" };

export const token = () => field.value;

export const authorization = () => (field.value ? { Authorization: `Bearer ${field.value}` } : {});

// status: of an answer to this action.
export function learnNeed(action, status) {
  if (status === 401) known[action] = "needed";
  else if (status < 300 && !field.value) known[action] = "none needed";
  const needed = Object.keys(known).filter((name) => known[name] === "needed");
  if (needed.length) field.placeholder = `needed to ${needed.join(" and ")}`;
  else field.placeholder = known.read && known.publish ? "none needed" : "if one is needed";
}
