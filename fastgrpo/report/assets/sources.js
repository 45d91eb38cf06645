// Where rollouts come from: from the page itself, or from the server that shows a run live. Both answer page(filter, cursor) alike:
// {rows, next, matches}; `next` is the cursor of what follows, null at the end; `matches` is null where nobody counted.

const PAGE = 50;

class EmbeddedRollouts {
  constructor(packed) {
    this.packed = packed; // by run, elements that hold chunks
    this.loaded = new Map();
    this.found = { key: null, rows: [] };
  }

  async rows(run) {
    if (!this.loaded.has(run)) {
      const rows = [];
      for (const element of this.packed(run)) rows.push(...JSON.parse(await unpack(element.textContent)));
      for (const row of rows) row.searched = [row.id, row.problem, row.gold, row.text].join("\n").toLowerCase();
      this.loaded.set(run, rows);
    }
    return this.loaded.get(run);
  }

  async page(filter, cursor) {
    const key = JSON.stringify(filter);
    if (this.found.key !== key) this.found = { key, rows: (await this.rows(filter.run)).filter((row) => passes(row, filter)) };
    const start = cursor ?? 0,
      end = start + PAGE;
    return { rows: this.found.rows.slice(start, end), next: end < this.found.rows.length ? end : null, matches: this.found.rows.length };
  }
}

// What the server does with the same names; see rows_that_pass in report/paging.py.
function passes(row, filter) {
  if (filter.first !== "" && row.step < Number(filter.first)) return false;
  if (filter.last !== "" && row.step > Number(filter.last)) return false;
  if (filter.shortest !== "" && row.length < Number(filter.shortest)) return false;
  if (filter.longest !== "" && row.length > Number(filter.longest)) return false;
  if (filter.truncated !== "any" && row.truncated !== (filter.truncated === "yes")) return false;
  if (filter.grading !== "any" && (row.grading === "ok") !== (filter.grading === "ok")) return false;
  if (filter.reward === "none" && row.reward !== null) return false;
  if (filter.reward === "positive" && !(row.reward > 0)) return false;
  if (filter.reward === "zero" && row.reward !== 0) return false;
  if (filter.reward === "negative" && !(row.reward < 0)) return false;
  return filter.q === "" || row.searched.includes(filter.q.toLowerCase());
}

class ServedRollouts {
  async page(filter, cursor) {
    const asked = new URLSearchParams({ ...filter, cursor: cursor ?? "" });
    const answer = await fetch(`rollouts.json?${asked}`);
    if (!answer.ok) throw new Error(await answer.text());
    return answer.json();
  }
}
