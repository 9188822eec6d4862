# Runs compared over seeds: t.test (paired, one-sided at the margins), p.adjust, power.t.test and quadrature.
# Run in this folder: Rscript run_comparisons.R > run_comparisons.txt
# Losses of runs a, b, c, d over six seeds, from sine values.
out <- function(name, value) cat(sprintf("%s\t%.12g\n", name, value))
S <- 6; margin <- 0.05; alpha <- 0.05; s <- 1:S
run <- list(a = 1.9 + 0.02 * sin(3 * s), b = 1.98 + 0.02 * sin(3 * s) + 0.03 * cos(5 * s),
            c = 1.91 + 0.02 * sin(3 * s) + 0.01 * sin(7 * s), d = 1.92 + 0.06 * sin(11 * s))
p <- c()
for (other in c("b", "c", "d")) {
  t <- t.test(run$a, run[[other]], paired = TRUE); d <- run$a - run[[other]]
  out(paste0("estimate_", other), t$estimate); out(paste0("t_", other), t$statistic); out(paste0("p_", other), t$p.value)
  out(paste0("low_", other), t$conf.int[1]); out(paste0("high_", other), t$conf.int[2])
  above <- t.test(d, mu = -margin, alternative = "greater"); below <- t.test(d, mu = margin, alternative = "less")
  out(paste0("tost_p_", other), max(above$p.value, below$p.value))
  ci <- t.test(d, conf.level = 1 - 2 * alpha)$conf.int
  out(paste0("tost_low_", other), ci[1]); out(paste0("tost_high_", other), ci[2])
  power <- function(delta) power.t.test(S, delta, sd(d), type = "one.sample", strict = TRUE)$power - 0.8
  out(paste0("mde_", other), uniroot(power, c(1e-4, 1), tol = 1e-12)$root)
  p <- c(p, t$p.value)
}
holm <- p.adjust(p, "holm")
for (i in 1:3) out(paste0("holm_", c("b", "c", "d")[i]), holm[i])
one <- t.test(run$a)
out("mean", one$estimate); out("mean_low", one$conf.int[1]); out("mean_high", one$conf.int[2]); out("mean_p", one$p.value)
# Seeds that settle: a t test at alpha / tests finds ratio SDs with power .8, and both one-sided tests reject at 0.
equivalent <- function(n, delta) {
  df <- n - 1
  inside <- function(s) pmax(0, 2 * pnorm(sqrt(n) * delta - qt(0.95, df) * s) - 1) * 2 * s * df * dchisq(s^2 * df, df)
  edge <- sqrt(n) * delta / qt(0.95, df)
  integrate(inside, 0, min(edge, 1), rel.tol = 1e-9)$value + if (edge > 1) integrate(inside, 1, min(edge, 6), rel.tol = 1e-9)$value else 0
}
found <- function(n, ratio, level) power.t.test(n, ratio, 1, sig.level = level, type = "one.sample", strict = TRUE)$power
for (ratio in c(5, 2.5, 1, 0.5, 0.2)) for (tests in c(1, 6)) {
  n <- 2
  while (found(n, ratio, alpha / tests) < 0.8 || equivalent(n, ratio) < 0.8) n <- n + 1
  out(sprintf("settle_%g_%d", ratio, tests), n)
}
