# Witness for stats/power.py.
# Repeat: Rscript tests/reference/power_design.R > tests/reference/power_design.txt
out <- function(...) cat(..., "\n")
f <- function(x) sprintf("%.10g", x)
# (1) one difference, noncentral t: ncp = effect / se
for (df in c(5, 28, 58)) for (ratio in c(0.5, 2, 3.3)) for (alpha in c(0.05, 0.0016)) {
  t <- qt(1 - alpha / 2, df)
  out("two_sided", df, ratio, alpha, f(pt(-t, df, ratio) + pt(t, df, ratio, lower.tail = FALSE)))
}
# (2) the whole design through power.t.test: 31 pairs, paired, sd of a difference 1
for (delta in c(0.2, 0.5)) out("paired", 31, delta, f(power.t.test(31, delta, 1, type = "paired", strict = TRUE)$power))
# (3) minimum detectable effect of the spec's three designs, normal quantiles
for (d in list(c(15, 5), c(30, 10), c(30, 20))) out("mde", d, f((qnorm(0.975) + qnorm(0.8)) * sqrt(2 / prod(d))))
# (4) all contrasts equivalent under the null, three sources, three metrics: range of three means by quadrature
chance <- function(se, margin, df, alpha, m) {
  cut <- function(s) pmax(0, sqrt(2) * (margin / se - qt(1 - alpha, df) * s))
  if (is.infinite(df)) return(ptukey(sqrt(2) * (margin / se - qnorm(1 - alpha)), 3, Inf)^m)
  g <- function(s) ptukey(cut(s), 3, Inf) * 2 * s * df * dchisq(s^2 * df, df)
  (integrate(g, 0, 1, rel.tol = 1e-9)$value + integrate(g, 1, 5, rel.tol = 1e-9)$value)^m
}
for (k in c(10, 20, 40)) for (df in c(58, Inf)) out("null_equivalent", k, df, f(chance(sqrt(2 / (30 * k)), 0.2, df, 0.05, 3)))
# (5) DETECTED, by simulation of one million designs: three means, extremes `ratio` standard errors apart
set.seed(1)
n <- 1e6
for (case in list(c(2.5, 58, 0.05, 1), c(3.5, 58, 0.0471, 3), c(3, 22, 0.05, 3))) {
  z <- matrix(rnorm(3 * n), n) + rep(c(-1, 0, 1) * case[1] / sqrt(2), each = n)
  s <- sqrt(rchisq(n, case[2]) / case[2])
  F <- (rowSums(z^2) - rowSums(z)^2 / 3) / 2 / s^2
  r <- (pmax(z[, 1], z[, 2], z[, 3]) - pmin(z[, 1], z[, 2], z[, 3])) / s
  hit <- F > qf(1 - case[3] / case[4], 2, case[2]) & r > qtukey(1 - case[3], 3, case[2])
  out("detection", case, f(mean(hit)))
}
cat("#", R.version.string, "\n")
