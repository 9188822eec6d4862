# Witness for stats/equivalence.py: two one-sided t.tests, which is TOSTER's formula (TOSTER is not in the image).
# Repeat: Rscript tests/reference/equivalence_tost.R > tests/reference/equivalence_tost.txt
# Data: differences of prompt means, from sine values so that the test can make them again.
for (case in 1:6) {
  n <- c(12, 30, 30, 30, 8, 58)[case]
  shift <- c(0, 0.05, -0.12, 0.19, 0.6, -0.2)[case]
  margin <- c(0.3, 0.2, 0.2, 0.2, 0.5, 0.2)[case]
  alpha <- c(0.05, 0.05, 0.0016, 0.05, 0.05, 0.0471)[case]
  d <- 0.4 * sin(1:n * 1.7) + shift
  low <- t.test(d, mu = -margin, alternative = "greater")
  high <- t.test(d, mu = margin, alternative = "less")
  ci <- t.test(d, conf.level = 1 - 2 * alpha)$conf.int
  cat(case, n, shift, margin, alpha, sprintf("%.12g", c(mean(d), sd(d) / sqrt(n), n - 1, low$statistic,
      high$statistic, max(low$p.value, high$p.value), ci[1], ci[2])), "\n")
}
cat("#", R.version.string, "\n")
