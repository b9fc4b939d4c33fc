"use strict";
// A click on a column's name sorts by it, a second one the other way round. Null comes last.
for (const button of document.querySelectorAll(".sort")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const column = heading.cellIndex;
    const direction = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of heading.parentElement.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    const isNumber = heading.classList.contains("number");
    const body = heading.closest("table").tBodies[0];
    const key = (row) => row.cells[column].dataset.sort;
    const compare = (a, b) => {
      const left = key(a), right = key(b);
      if (left === "" || right === "") return (left === "") - (right === "");
      return direction * (isNumber ? left - right : left.localeCompare(right, document.documentElement.lang));
    };
    body.append(...[...body.rows].sort(compare));
  });
}
// What is copied is the table itself: a spreadsheet takes its rows and columns as they are.
for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", () => {
    getSelection().selectAllChildren(document.getElementById(button.dataset.table));
    if (document.execCommand("copy")) button.textContent = button.dataset.copied;
  });
}
// On paper nothing can be opened: the short tables are.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) {
    if (details.querySelectorAll("tr").length <= 40) details.open = true;
  }
});
