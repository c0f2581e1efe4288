// Functions that the tables' columns may name (dash-ag-grid looks for them in this object).
window.dashAgGridFunctions = window.dashAgGridFunctions || {};

// A text without the signs that turn the direction of what follows them, out of its cell too.
window.dashAgGridFunctions.readable = function (value) {
  return typeof value === "string" ? value.replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "") : value;
};
