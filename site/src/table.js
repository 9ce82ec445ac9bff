// A table that sorts by its headers, and its content as CSV.
import { element } from "./dom.js";

/**
 * columns: {key, title, value(row), text(row), number, node(row), csvOnly}; draws rows into `table` and remembers the order.
 */
export class SortableTable {
  constructor(table, columns, sortKey, descending = true) {
    Object.assign(this, { table, all: columns, columns: columns.filter((c) => !c.csvOnly), sortKey, descending, rows: [] });
    this.head = element("thead");
    this.body = element("tbody");
    table.append(this.head, this.body);
  }

  show(rows) {
    this.rows = rows;
    const column = this.columns.find((c) => c.key === this.sortKey) ?? this.columns[0];
    const sign = this.descending ? -1 : 1;
    const ordered = rows.toSorted((a, b) => sign * compare(column.value(a), column.value(b)));
    const focused = document.activeElement?.dataset?.sort;
    this.head.replaceChildren(
      element(
        "tr",
        {},
        this.columns.map((c) =>
          element(
            "th",
            { scope: "col", class: c.number ? "number" : null, "aria-sort": c === column ? (this.descending ? "descending" : "ascending") : null },
            element("button", { type: "button", "data-sort": c.key, onclick: () => this.sortBy(c) }, c.title()),
          ),
        ),
      ),
    );
    this.body.replaceChildren(
      ...ordered.map((row) =>
        element(
          "tr",
          { "data-name": row.name },
          this.columns.map((c, i) => element(i ? "td" : "th", { class: c.number ? "number" : null, scope: i ? null : "row" }, c.node ? c.node(row) : c.text(row))),
        ),
      ),
    );
    if (focused) this.head.querySelector(`[data-sort="${CSS.escape(focused)}"]`)?.focus();
    this.ordered = ordered;
  }

  sortBy(column) {
    this.descending = column.key === this.sortKey ? !this.descending : column.number === true;
    this.sortKey = column.key;
    this.show(this.rows);
  }

  csv() {
    const lines = [this.all.map((c) => c.title()), ...this.ordered.map((row) => this.all.map((c) => c.value(row) ?? ""))];
    return lines.map((cells) => cells.map(quoted).join(",")).join("\r\n") + "\r\n";
  }
}

function compare(a, b) {
  if (a === null || a === undefined) return b === null || b === undefined ? 0 : -1;
  if (b === null || b === undefined) return 1;
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

function quoted(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Offers `text` as a file. */
export function download(text, name, type) {
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
