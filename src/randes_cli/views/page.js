"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");

  // Tables: a click on a heading sorts by that column, a second one turns the order round.
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
  };
  const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b));
  for (const head of document.querySelectorAll("th button")) {
    head.addEventListener("click", () => {
      const cell = head.parentElement;
      const body = cell.closest("table").tBodies[0];
      const up = cell.getAttribute("aria-sort") !== "ascending";
      for (const other of cell.parentElement.cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = Array.from(body.rows, (row) => [key(row, cell.cellIndex), row]);
      rows.sort((a, b) => (up ? compare(a[0], b[0]) : compare(b[0], a[0])));
      body.append(...rows.map((pair) => pair[1]));
    });
  }

  // Heatmaps: the cell under the pointer says its pair of tasks and both its values.
  const hide = (cursor) => {
    tip.hidden = true;
    cursor.setAttribute("visibility", "hidden");
  };
  const show = (value) => value.toFixed(4);
  for (const map of document.querySelectorAll(".heat")) {
    const cursor = map.querySelector(".cursor");
    const size = Number(map.dataset.cell), edge = Number(map.dataset.edge);
    const look = (event) => {
      const box = map.getBoundingClientRect();
      const scale = map.viewBox.baseVal.width / box.width;
      const column = Math.floor(((event.clientX - box.left) * scale - edge) / size);
      const row = Math.floor(((event.clientY - box.top) * scale - edge) / size);
      const count = data.names.length;
      if (row < 0 || column < 0 || row >= count || column >= count) return hide(cursor);
      cursor.setAttribute("x", column * size);
      cursor.setAttribute("y", row * size);
      cursor.setAttribute("visibility", "visible");
      const pair = data.names[row] + " × " + data.names[column];
      tip.textContent =
        pair + ": " + show(data.before[row][column]) + " → " + show(data.during[row][column]);
      tip.hidden = false;
      const room = tip.getBoundingClientRect();
      tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - room.width - 4)) + "px";
      tip.style.top = Math.max(4, Math.min(event.clientY + 16, innerHeight - room.height - 4)) + "px";
    };
    map.addEventListener("pointermove", look);
    map.addEventListener("pointerdown", look);
    map.addEventListener("pointerleave", () => hide(cursor));
  }
})();
