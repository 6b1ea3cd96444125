// Copies text and confirms it on the button. onFailure: called when there is no clipboard, or none is allowed (without
// TLS); returns the button's text.
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

// Selects what cannot be copied, so that the reader can copy it by hand.
export function select(element) {
  getSelection().selectAllChildren(element);
  return "Selected";
}
