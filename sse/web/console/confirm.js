// A question before something that cannot be undone.

const $ = (id) => document.getElementById(id);

// Return whether the visitor confirms. word: what has to be typed first, if anything.
export function confirm({ title, text, action, word = "" }) {
  const dialog = $("confirm");
  const typed = $("confirm-word");
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  $("confirm-yes").textContent = action;
  $("confirm-label").hidden = !word;
  typed.value = "";
  const allow = () => ($("confirm-yes").disabled = typed.value !== word);
  allow();
  typed.oninput = allow;
  dialog.returnValue = "";
  dialog.showModal();
  (word ? typed : $("confirm-no")).focus();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
  });
}

$("confirm-form").addEventListener("submit", (event) => {
  event.preventDefault();
  $("confirm").close("yes");
});
$("confirm-no").addEventListener("click", () => $("confirm").close());
