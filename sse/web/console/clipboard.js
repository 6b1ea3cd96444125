// Copy text and confirm it on the button. onFailure: called if the page may not use the clipboard (without TLS); returns
// the button's text.
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

// Select an element's text, so that the reader can copy it by hand.
export function select(element) {
  getSelection().selectAllChildren(element);
  return "Selected";
}
