# Witness for stats/studentized_range.py.
# Repeat: Rscript tests/reference/mixed_tukey.R > tests/reference/mixed_tukey.txt
for (k in c(2, 3, 4, 6)) for (df in c(2.4, 3, 12.7, 58, 4000, Inf)) {
  for (q in c(0.5, 2, 3.5, 6)) cat("sf", k, df, q, sprintf("%.10g", ptukey(q, k, df, lower.tail = FALSE)), "\n")
  for (p in c(0.05, 0.0016)) cat("isf", k, df, p, sprintf("%.10g", qtukey(p, k, df, lower.tail = FALSE)), "\n")
}
cat("#", R.version.string, "\n")
