# Witness for stats/meta_analysis.py and stats/across_models.py.
# Repeat: Rscript tests/reference/across_models_metafor.R > tests/reference/across_models_metafor.txt
# Estimates from sine values so that the test can make them again. case, then one line a model:
# estimate, se, low, high, df, t, p, tau2, Q, Q's p, I2.
suppressPackageStartupMessages(library(metafor))
fine <- list(threshold = 1e-13, maxiter = 10000)
line <- function(case, what, fit, at) cat(case, what, sprintf("%.12g", c(fit$beta[at], fit$se[at], fit$ci.lb[at],
  fit$ci.ub[at], fit$ddf[1], fit$zval[at], fit$pval[at], fit$tau2, fit$QE, fit$QEp, fit$I2 / 100)), "\n")
cases <- list(c(4, 0.02, 0.3), c(6, 0.1, 0.2), c(4, 0.4, 0.1), c(12, 0.05, -0.1), c(3, 0.3, 0.5), c(5, 0.001, 0.01))
for (case in seq_along(cases)) {
  k <- cases[[case]][1]
  i <- 1:k
  y <- cases[[case]][3] + cases[[case]][2] * 3 * sin(1.7 * i)
  se <- 0.1 * (1 + 0.5 * cos(2.3 * i))
  x <- 5 + 0.7 * i + 0.1 * sin(i)
  for (test in c("knha", "adhoc")) {
    line(case, paste0("mean_", test), suppressWarnings(rma(y, sei = se, method = "REML", test = test, control = fine)), 1)
    if (k > 2) line(case, paste0("slope_", test), suppressWarnings(rma(y, sei = se, mods = ~ x, method = "REML", test = test, control = fine)), 2)
  }
}
# The difference of two rungs is Welch's test when each estimate is a mean of n values: case, n, estimate, se,
# df, t, p, low, high.
for (case in 1:3) {
  n <- list(c(12, 30), c(8, 8), c(30, 5))[[case]]
  a <- 0.4 * sin(1.7 * 1:n[1]) + 0.3
  b <- 0.9 * sin(2.1 * 1:n[2])
  t <- t.test(a, b)
  cat(case, "welch", sprintf("%.12g", c(n, t$estimate[1] - t$estimate[2], t$stderr, t$parameter, t$statistic, t$p.value,
    t$conf.int)), "\n")
}
cat("#", R.version.string, "metafor", as.character(packageVersion("metafor")), "\n")
