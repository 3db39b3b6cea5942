// Copying, enlarging and scrolling in articles.

// Copy formulas as TeX.
addEventListener("copy", event => {
  const selection = getSelection();
  if (selection.isCollapsed) return;
  const fragment = document.createElement("div");
  for (let i = 0; i < selection.rangeCount; i++) {
    const range = selection.getRangeAt(i);
    const end = node => (node.closest ? node : node.parentElement)?.closest(".formula");
    if (end(range.startContainer)) range.setStartBefore(end(range.startContainer));
    if (end(range.endContainer)) range.setEndAfter(end(range.endContainer));
    fragment.append(range.cloneContents());
  }
  if (!fragment.querySelector(".formula")) return;
  for (const formula of fragment.querySelectorAll(".formula")) {
    const fence = formula.classList.contains("formula-block") ? "$$" : "$";
    formula.textContent = fence + formula.querySelector("annotation").textContent + fence;
  }
  // innerText needs layout, so the fragment is laid out off-screen.
  fragment.style.cssText = "position: fixed; left: -9999px; white-space: normal";
  document.body.append(fragment);
  for (const hidden of [...fragment.querySelectorAll("*")].filter(element => !element.checkVisibility())) hidden.remove();
  for (const link of fragment.querySelectorAll("a[href]")) link.href = link.href; // absolute, for pasting
  for (const image of fragment.querySelectorAll("img")) image.src = image.src;
  event.clipboardData.setData("text/plain", fragment.innerText);
  event.clipboardData.setData("text/html", fragment.innerHTML);
  fragment.remove();
  event.preventDefault();
});

// Call `end` two seconds after the latest call for the element.
const timers = new WeakMap();
const briefly = (element, end) => {
  clearTimeout(timers.get(element));
  timers.set(element, setTimeout(end, 2000));
};

// A button on each code block copies it, or selects the code if the clipboard is unavailable.
const copyCode = document.querySelector("#copy-code").content.firstElementChild;
for (const code of document.querySelectorAll(".md-typeset pre > code")) {
  if (!code.closest(".no-copy")) code.before(copyCode.cloneNode(true));
}
const toast = document.querySelector(".md-dialog");
toast.role = "status";
document.addEventListener("click", async event => {
  const button = event.target.closest(".md-code__button");
  if (!button) return;
  const code = button.closest("pre").querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    getSelection().selectAllChildren(code);
    return;
  }
  toast.firstElementChild.textContent = button.dataset.done;
  toast.classList.add("md-dialog--active");
  briefly(toast, () => toast.classList.remove("md-dialog--active"));
});

// Below a definition: copy its file, which the link next to the button downloads.
document.addEventListener("click", async event => {
  const button = event.target.closest(".take button");
  if (!button) return;
  const link = button.nextElementSibling;
  const file = fetch(link.href).then(response => response.ok ? response.text() : Promise.reject(response.statusText));
  try {
    // Pass the clipboard a promise: some browsers only allow writing during the click.
    const text = file.then(text => new Blob([text], { type: "text/plain" }));
    await navigator.clipboard.write([new ClipboardItem({ "text/plain": text })]);
  } catch {
    link.click();
    return;
  }
  button.dataset.label ??= button.textContent;
  button.textContent = button.dataset.done;
  briefly(button, () => { button.textContent = button.dataset.label; });
});

// A click or Enter on a figure enlarges it to the window.
const enlarged = document.querySelector(".enlarged");
document.addEventListener("click", event => {
  const link = event.target.closest(".enlarge");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const [from, to] = [link.querySelector("img"), enlarged.querySelector("img")];
  [to.src, to.alt] = [from.src, from.alt];
  enlarged.showModal();
  to.parentElement.scrollTo(0, 0);
});
enlarged.addEventListener("click", () => enlarged.close());
enlarged.addEventListener("keydown", event => event.stopPropagation()); // not a shortcut of the page

// Elements are focusable exactly while they scroll sideways.
const wide = new ResizeObserver(entries => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
const scrollers = () => document.querySelectorAll(".formula-block, .md-typeset table:not([class]), .md-typeset pre > code");
addEventListener("load", () => scrollers().forEach(element => wide.observe(element)));
