# Witness for stats/multiplicity.py.
# Repeat: Rscript tests/reference/multiplicity_p_adjust.R > tests/reference/multiplicity_p_adjust.txt
families <- list(
  plain = c(0.01, 0.04, 0.03, 0.005), ties = c(0.02, 0.02, 0.5, 0.02, 1), one = 0.3,
  edges = c(0, 1, 1e-300, 0.999), long = ((1:25 * 37) %% 101) / 997
)
for (name in names(families)) {
  p <- families[[name]]
  cat(name, "p", sprintf("%.15g", p), "\n")
  cat(name, "holm", sprintf("%.15g", p.adjust(p, "holm")), "\n")
  cat(name, "BH", sprintf("%.15g", p.adjust(p, "BH")), "\n")
}
cat("#", R.version.string, "\n")
