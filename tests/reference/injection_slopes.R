# Witness for the slope on dose in stats/injection_effect.py: lm by prompt, then t.test of the slopes.
# Repeat: Rscript tests/reference/injection_slopes.R > tests/reference/injection_slopes.txt
# Values from sines so that the test can make them again. case, then estimate, low, high, t, df, p.
doses <- c(0, 0.05, 0.1, 0.3, 1, 3)
for (case in 1:3) {
  d <- expand.grid(sample = 1:4, source = 1:3, dose = seq_along(doses), prompt = 1:c(5, 15, 2)[case])
  i <- seq_len(nrow(d))
  d$x <- doses[d$dose]
  d$y <- c(0.2, 0, 1)[case] * d$x + 2 * sin(1.3 * i) + 0.3 * d$x * sin(7 * d$prompt) + d$prompt
  if (case == 2) d <- d[i %% 7 != 0, ]   # unequal numbers of texts
  slopes <- sapply(split(d, d$prompt), function(part) coef(lm(y ~ x, part))[2])
  t <- t.test(slopes)
  cat(case, sprintf("%.12g", c(t$estimate, t$conf.int, t$statistic, t$parameter, t$p.value)), "\n")
}
cat("#", R.version.string, "\n")
