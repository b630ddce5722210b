"use strict";
(() => {
  const status = document.querySelector(".status");
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.key ?? cell.textContent;
  };
  const sort = (table, column) => {
    const heads = [...table.tHead.rows[0].cells];
    const head = heads[column];
    const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    heads.forEach((one) => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const numeric = head.classList.contains("number");
    const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
    rows.sort(([a], [b]) => {
      // What has no value comes last in either order.
      if (a === "" || b === "") return (a === "") - (b === "");
      return sign * (numeric ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true }));
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
    status.textContent = `${table.caption.firstChild.textContent.trim()}: sorted by ${head.textContent.trim()}, ${order}`;
  };
  document.querySelectorAll("table.sortable").forEach((table) => {
    table.querySelectorAll("th button").forEach((button, column) => {
      button.addEventListener("click", () => sort(table, column));
    });
  });
  document.querySelectorAll(".layers input").forEach((box) => {
    const layer = document.getElementById(box.value);
    const show = () => { layer.style.display = box.checked ? "" : "none"; };
    box.addEventListener("change", show);
    show();
  });
})();
