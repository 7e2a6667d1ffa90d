// How results of the search are ranked: pages to read before those on the code, then cards, the API last.
// Numbers other than `score` are Sphinx's own.
var Scorer = {
  score: ([docname, title, anchor, descr, score, filename, kind]) => {
    if (docname.startsWith("generated/api/")) return score - 40;
    if (docname.startsWith("generated/")) return score - 10;
    if (docname === "architecture" || docname === "decisions") return score - 3;
    return score;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
