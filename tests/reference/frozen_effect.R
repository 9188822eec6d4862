# Frozen test: p of rotations counted, Fisher by pchisq, the excess by t.test, equivalence by one-sided t tests.
# Run in this folder: Rscript frozen_effect.R > frozen_effect.txt
# Effects of five seeds and 200 rotations each, from sine values.
out <- function(name, value) cat(sprintf("%s\t%.12g\n", name, value))
S <- 5; m <- 200; margin <- 0.05; alpha <- 0.05
effect <- 0.22 + 0.05 * sin(3 * 1:S)
null <- outer(1:S, 1:m, function(s, i) abs(0.1 + 0.1 * sin(1.3 * i + 0.7 * s) + 0.03 * cos(2.9 * i * s)))
axis <- outer(1:S, 1:m, function(s, i) abs(0.2 + 0.1 * sin(0.9 * i + 1.1 * s)))
p <- sapply(1:S, function(s) (1 + sum(null[s, ] >= effect[s])) / (m + 1))
for (s in 1:S) out(paste0("p_", s), p[s])
fisher <- function(p) { x <- -2 * sum(log(p)); c(x, pchisq(x, 2 * length(p), lower.tail = FALSE)) }
out("chi2", fisher(p)[1]); out("fisher_p", fisher(p)[2])
q <- sapply(1:S, function(s) (1 + sum(axis[s, ] >= effect[s])) / (m + 1))
out("axis_chi2", fisher(q)[1]); out("axis_p", fisher(q)[2])
d <- effect - rowMeans(null)
t <- t.test(d)
out("excess", t$estimate); out("low", t$conf.int[1]); out("high", t$conf.int[2]); out("t", t$statistic); out("p", t$p.value)
above <- t.test(d, mu = -margin, alternative = "greater"); below <- t.test(d, mu = margin, alternative = "less")
out("tost_p", max(above$p.value, below$p.value))
ci <- t.test(d, conf.level = 1 - 2 * alpha)$conf.int
out("tost_low", ci[1]); out("tost_high", ci[2])
power <- function(delta) power.t.test(S, delta, sd(d), type = "one.sample", strict = TRUE)$power - 0.8
out("mde", uniroot(power, c(1e-4, 1), tol = 1e-12)$root)
z <- t.test(effect / (0.2 + 0.01 * 1:S))
out("standardised", z$estimate); out("standardised_low", z$conf.int[1]); out("standardised_high", z$conf.int[2])
