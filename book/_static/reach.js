/* What scrolls within the page is reached by the keyboard: a tab stop while it is wider than its frame, none otherwise.
   The theme does so for code and tables; figures (on a phone) and equations are ours. */
const reach = () => {
  for (const frame of document.querySelectorAll("figure, .tf-stage, .tf-scroll, div.math, .cell_output .output")) {
    const scrolls = frame.scrollWidth > frame.clientWidth && getComputedStyle(frame).overflowX !== "visible";
    if (scrolls) frame.tabIndex = 0;
    else frame.removeAttribute("tabindex");
  }
};
addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  new ResizeObserver(reach).observe(document.body);
});
