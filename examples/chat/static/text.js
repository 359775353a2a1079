// An answer's text as elements: paragraphs, bold, and code between backticks. Nothing of it is read as HTML.

const MARKED = /(`[^`\n]+`|\*\*[^*\n]+\*\*)/;

export function show(text, place) {
  const parts = text.split(/^```[^\n]*\n?/m);
  const made = parts.flatMap((part, at) => (at % 2 ? [code(part)] : paragraphs(part)));
  // What has not changed stays, so that a selection in it lives while more text comes.
  made.forEach((element, at) => {
    const old = place.children[at];
    if (!old) place.append(element);
    else if (old.tagName !== element.tagName || old.textContent !== element.textContent) old.replaceWith(element);
  });
  while (place.children.length > made.length) place.lastElementChild.remove();
}

function paragraphs(text) {
  return text
    .split(/\n{2,}/)
    .filter((part) => part.trim())
    .map((part) => {
      const paragraph = document.createElement("p");
      part.trim().split(MARKED).forEach((piece, at) => paragraph.append(at % 2 ? marked(piece) : piece));
      return paragraph;
    });
}

function marked(piece) {
  const [name, textContent] = piece[0] === "`" ? ["code", piece.slice(1, -1)] : ["strong", piece.slice(2, -2)];
  return Object.assign(document.createElement(name), { textContent });
}

function code(text) {
  const block = document.createElement("pre");
  block.tabIndex = 0;
  block.append(Object.assign(document.createElement("code"), { textContent: text.replace(/\n$/, "") }));
  return block;
}
