// What a reader does with an article: copy, enlarge, scroll.

// A copied formula is its TeX.
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
  // innerText needs layout, so the fragment is laid out where nobody sees it.
  fragment.style.cssText = "position: fixed; left: -9999px; white-space: normal";
  document.body.append(fragment);
  for (const unseen of [...fragment.querySelectorAll("*")].filter(element => !element.checkVisibility())) unseen.remove();
  for (const link of fragment.querySelectorAll("a[href]")) link.href = link.href; // whole, for where it is pasted
  for (const image of fragment.querySelectorAll("img")) image.src = image.src;
  event.clipboardData.setData("text/plain", fragment.innerText);
  event.clipboardData.setData("text/html", fragment.innerHTML);
  fragment.remove();
  event.preventDefault();
});

// What says that something was done, for two seconds after it was done last.
const timers = new WeakMap();
const briefly = (element, end) => {
  clearTimeout(timers.get(element));
  timers.set(element, setTimeout(end, 2000));
};

// A button on each block of code copies it. Where the clipboard is out of reach, the code is selected.
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

// Below a definition: copy its file, which the link beside the button downloads.
document.addEventListener("click", async event => {
  const button = event.target.closest(".take button");
  if (!button) return;
  const link = button.nextElementSibling;
  const file = fetch(link.href).then(answer => answer.ok ? answer.text() : Promise.reject(answer.statusText));
  try {
    // The clipboard takes a promise, since some browsers write only while the click lasts.
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

// A figure that is clicked on, or that Enter is pressed on, is shown as large as the window.
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
enlarged.addEventListener("keydown", event => event.stopPropagation()); // the page's keys lead elsewhere

// What can be scrolled sideways can be reached with the keyboard, and nothing else of its kind.
const wide = new ResizeObserver(entries => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
const scrollers = () => document.querySelectorAll(".formula-block, .md-typeset table:not([class]), .md-typeset pre > code");
addEventListener("load", () => scrollers().forEach(element => wide.observe(element)));
