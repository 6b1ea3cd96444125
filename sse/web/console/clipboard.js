// Copies text and says so on the button. onFailure: called where there is no clipboard, or none is allowed (without
// TLS); it returns the word for the button.
export async function copy(text, button, onFailure) {
  const name = (button.dataset.name ??= button.textContent);
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = onFailure();
  }
  setTimeout(() => (button.textContent = name), 1500);
}

// What cannot be copied is selected, to be copied by hand.
export function select(element) {
  getSelection().selectAllChildren(element);
  return "Selected";
}
