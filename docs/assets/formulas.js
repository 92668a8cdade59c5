// Draws the formulas, also after a change of page without loading.
function drawFormulas() {
  for (const element of document.querySelectorAll(".arithmatex:not([data-drawn])")) {
    const text = element.textContent.trim();
    element.dataset.drawn = "yes";
    katex.render(text.replace(/^\\[([]|\\[)\]]$/g, ""), element, { displayMode: text.startsWith("\\["), throwOnError: false });
  }
}
document.addEventListener("DOMContentLoaded", drawFormulas);
