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
  const show = (value) => value.toFixed(4);
  for (const map of document.querySelectorAll(".heat[data-key]")) {
    const [left, top, width, height] = map.dataset.box.split(" ").map(Number);
    const cursor = map.appendChild(document.createElement("div"));
    cursor.className = "cursor";
    cursor.hidden = true;
    const hide = () => {
      tip.hidden = true;
      cursor.hidden = true;
    };
    const look = (event) => {
      const box = map.getBoundingClientRect();
      const count = data.names.length;
      const column = Math.floor((((event.clientX - box.left) / box.width - left) / width) * count);
      const row = Math.floor((((event.clientY - box.top) / box.height - top) / height) * count);
      if (row < 0 || column < 0 || row >= count || column >= count) return hide();
      cursor.style.left = 100 * (left + (column / count) * width) + "%";
      cursor.style.top = 100 * (top + (row / count) * height) + "%";
      cursor.style.width = (100 * width) / count + "%";
      cursor.style.height = (100 * height) / count + "%";
      cursor.hidden = false;
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
    map.addEventListener("pointerleave", hide);
  }
})();
