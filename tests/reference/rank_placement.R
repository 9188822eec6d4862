# Treatment against shuffles over seeds: t.test, sign flips and rank sums by enumeration, aov, binom.test, power.t.test.
# Run in this folder: Rscript rank_placement.R > rank_placement.txt
# Answers (1 right, 0 wrong) of S seeds, arm 0 (treatment) and K shuffles, I items, from sine values.
out <- function(name, value) cat(sprintf("%s\t%.12g\n", name, value))
S <- 6; K <- 3; I <- 40; margin <- 0.06; alpha <- 0.05
answer <- function(s, k, i) as.numeric(sin(1.7 * i + 0.9 * s * k + 2.3 * k) + 0.8 * sin(11 * s + 5 * k) + 0.25 + 0.4 * (k == 0) > 0)
y <- outer(1:S, 1:I, Vectorize(function(s, i) answer(s, 0, i)))
x <- array(0, c(S, K, I))
for (s in 1:S) for (k in 1:K) x[s, k, ] <- answer(s, k, 1:I)
own <- rowMeans(y); each <- apply(x, 1:2, mean); other <- rowMeans(each); d <- own - other
for (s in 1:S) out(paste0("difference_", s), d[s])
t <- t.test(own, other, paired = TRUE)
out("estimate", t$estimate); out("t", t$statistic); out("p_t", t$p.value); out("low", t$conf.int[1]); out("high", t$conf.int[2])
out("d_z", mean(d) / sd(d)); out("d_pooled", mean(d) / sqrt((var(own) + var(other)) / 2))
above <- t.test(d, mu = -margin, alternative = "greater"); below <- t.test(d, mu = margin, alternative = "less")
out("tost_p", max(above$p.value, below$p.value)); out("not_below_t", above$p.value)
ci <- t.test(d, conf.level = 1 - 2 * alpha)$conf.int
out("tost_low", ci[1]); out("tost_high", ci[2])
# Sign flips: all 2^S, |mean| at least the observed; one-sided after moving the data by the margin.
signs <- as.matrix(expand.grid(rep(list(c(1, -1)), S)))
out("p_sign_flip", mean(abs(signs %*% d) >= abs(sum(d)) - 1e-9))
out("p_not_below", mean(signs %*% (d + margin) >= sum(d + margin) - 1e-9))
# Within-seed ranks: every place that the treatment could have taken in every seed.
places <- t(apply(cbind(own, each), 1, rank))
sums <- rowSums(expand.grid(lapply(1:S, function(s) places[s, ])))
centre <- S * (K + 2) / 2
out("rank_sum", sum(places[, 1])); out("p_rank", mean(abs(sums - centre) >= abs(sum(places[, 1]) - centre) - 1e-9))
# Spread: analysis of variance of shuffles x items in each seed.
ms <- sapply(1:S, function(s) {
  cells <- expand.grid(k = factor(1:K), i = factor(1:I)); cells$v <- as.vector(x[s, , ])
  table <- anova(lm(v ~ k + i, cells)); table[c("k", "Residuals"), "Mean Sq"]
})
shuffle2 <- max(0, (mean(ms[1, ]) - mean(ms[2, ])) / I)
item2 <- mean(sapply(1:S, function(s) var(y[s, ] - colMeans(x[s, , ]))))
out("sd_shuffle", sqrt(shuffle2)); out("sd_item", sqrt(item2)); out("sd_difference", sd(d))
out("sd_seed", sqrt(max(0, var(d) - shuffle2 * (1 + 1 / K) - item2 / I)))
for (s in 1:2) {
  b <- sum(y[s, ] > x[s, 1, ]); c <- sum(y[s, ] < x[s, 1, ])
  out(sprintf("mcnemar_b_%d", s), b); out(sprintf("mcnemar_c_%d", s), c); out(sprintf("mcnemar_p_%d", s), binom.test(b, b + c)$p.value)
}
# Power, one sample of n differences with SD 1, both tails counted.
power <- function(n, delta, level) power.t.test(n, delta, 1, sig.level = level, type = "one.sample", strict = TRUE)$power
for (n in c(2, 3, 6, 8, 20)) for (level in c(0.05, 0.05 / 6))
  out(sprintf("mde_%d_%.3f", n, level), uniroot(function(x) power(n, x, level) - 0.8, c(0.1, 200), tol = 1e-10)$root)
# Both one-sided tests reject at true zero: over the estimated SD, by quadrature.
equivalent <- function(n, delta) {
  df <- n - 1
  inside <- function(s) pmax(0, 2 * pnorm(sqrt(n) * delta - qt(0.95, df) * s) - 1) * 2 * s * df * dchisq(s^2 * df, df)
  edge <- sqrt(n) * delta / qt(0.95, df)
  integrate(inside, 0, min(edge, 1), rel.tol = 1e-9)$value + if (edge > 1) integrate(inside, 1, min(edge, 6), rel.tol = 1e-9)$value else 0
}
for (ratio in c(2.5, 1, 0.5, 0.2)) for (tests in c(1, 6)) {
  n <- ceiling(1 - log2(alpha / tests))
  flips <- function(n) if (tests * 2^(2 - n) <= alpha) 1 else pnorm(ratio)^n  # one arrangement a tail: all signs alike
  while (power(n, ratio, alpha / tests) < 0.8 || flips(n) < 0.8 || equivalent(n, ratio) < 0.8) n <- n + 1
  out(sprintf("settle_%g_%d", ratio, tests), n)
}
