// The language switch keeps the section: it takes over the address's fragment.
const twin = document.querySelector(".twin");
const follow = () => { twin.hash = location.hash; };
twin.addEventListener("pointerdown", follow);
twin.addEventListener("click", follow);
addEventListener("hashchange", follow);
follow();

// A copied formula is its TeX.
addEventListener("copy", event => {
  const selection = getSelection();
  if (selection.isCollapsed) return;
  const fragment = document.createElement("div");
  for (let i = 0; i < selection.rangeCount; i++) {
    const range = selection.getRangeAt(i);
    const end = node => (node.nodeType === Node.TEXT_NODE ? node.parentElement : node).closest(".formula");
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
  event.clipboardData.setData("text/plain", fragment.innerText);
  event.clipboardData.setData("text/html", fragment.innerHTML);
  fragment.remove();
  event.preventDefault();
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
});
enlarged.addEventListener("click", () => enlarged.close());

// What can be scrolled sideways can be reached with the keyboard, and nothing else of its kind.
const wide = new ResizeObserver(entries => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
const scrollers = () => document.querySelectorAll(".formula-block, .md-typeset__scrollwrap, .md-typeset pre > code");
addEventListener("load", () => scrollers().forEach(element => wide.observe(element)));
