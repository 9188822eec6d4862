# Witness for stats/control.py p_at_least: chance of so many disagreements or more where the rate is just met.
# Repeat: Rscript tests/reference/control_binomial.R > tests/reference/control_binomial.txt
for (rate in c(0.5, 0.95, 0.99)) for (pairs in c(20, 100, 400)) for (wrong in c(0, 1, 5, 12, 20)) {
  p <- if (wrong == 0) 1 else binom.test(wrong, pairs, 1 - rate, alternative = "greater")$p.value
  cat(rate, pairs, wrong, sprintf("%.12g", p), "\n")
}
cat("#", R.version.string, "\n")
