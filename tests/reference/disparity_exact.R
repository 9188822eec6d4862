# Exact tests over languages by re-testing shifted data: combn for labels, expand.grid for signs.
# Run in this folder: Rscript disparity_exact.R > disparity_exact.txt
# p at a shift: the share of arrangements whose statistic on the shifted data reaches the observed one; two-sided
# is twice the smaller tail. Interval ends: bisection of that p to 1e-10, no use of its linear form.
out <- function(name, value) cat(sprintf("%s\t%.12g\n", name, value))
tails <- function(drawn, seen) {
  near <- 1e-9
  c(greater = mean(drawn >= seen - near), less = mean(drawn <= seen + near))
}
two <- function(t) min(1, 2 * min(t))
# Largest shift rejected below, smallest shift rejected above the estimate.
ends <- function(p_at, estimate, alpha, reach) {
  side <- function(far) {
    inside <- estimate; outside <- far
    for (i in 1:60) { middle <- (inside + outside) / 2; if (p_at(middle) > alpha) inside <- middle else outside <- middle }
    inside
  }
  c(side(estimate - reach), side(estimate + reach))
}
report <- function(name, tails_at, estimate, margin, reach) {
  p_at <- function(shift) two(tails_at(shift))
  out(paste0(name, "_estimate"), estimate)
  out(paste0(name, "_p"), p_at(0))
  out(paste0(name, "_greater"), tails_at(0)[["greater"]])
  out(paste0(name, "_tost"), max(tails_at(-margin)[["greater"]], tails_at(margin)[["less"]]))
  for (alpha in c(0.05, 0.1)) {
    found <- ends(p_at, estimate, alpha, reach)
    out(sprintf("%s_low_%g", name, alpha), found[1])
    out(sprintf("%s_high_%g", name, alpha), found[2])
  }
}
labels_test <- function(y, low) {
  sets <- combn(length(y), length(low))
  function(shift) {
    moved <- y; moved[low] <- moved[low] - shift
    gap <- function(a) mean(moved[a]) - mean(moved[-a])
    tails(apply(sets, 2, gap), gap(low))
  }
}
y <- c(4.31, 2.75, 6.12, 3.08, 5.47, 1.93, 2.66, 3.51, 0.87, 2.24)
report("labels_5v5", labels_test(y, 1:5), mean(y[1:5]) - mean(y[6:10]), 4, 50)
x <- c(4.31, 2.75, 6.12, 3.08, 1.93, 2.66, 3.51, 0.87, 2.24, 5.9)
report("labels_4v6", labels_test(x, 1:4), mean(x[1:4]) - mean(x[5:10]), 4, 50)
out("labels_3v3_smallest", two(labels_test(c(9, 8, 7, 1, 2, 3), 1:3)(0)))
d <- c(0.52, 0.11, -0.07, 0.83, 0.34, 0.29, 0.61, 0.02, 0.45, -0.2)
signs <- as.matrix(expand.grid(rep(list(c(1, -1)), 10)))
report("signs_10", function(shift) tails(as.vector(signs %*% (d - shift)) / 10, mean(d - shift)), mean(d), 0.6, 5)
# Documents: totals over n sentences, the statistic is the mean a sentence.
n <- c(3, 7, 2, 5, 4, 6, 3, 8); total <- c(1.2, 4.1, -0.5, 2.2, 0.9, 3.3, 1.8, 2.6)
signs8 <- as.matrix(expand.grid(rep(list(c(1, -1)), 8)))
weighted <- function(shift) tails(as.vector(signs8 %*% (total - shift * n)) / sum(n), sum(total - shift * n) / sum(n))
report("documents_8", weighted, sum(total) / sum(n), 0.7, 5)
# Slope on log share over all 5040 permutations of 7 shares.
permute <- function(v) if (length(v) <= 1) matrix(v) else do.call(rbind, lapply(seq_along(v), function(i) cbind(v[i], permute(v[-i]))))
share <- log(c(0.4, 0.25, 0.15, 0.1, 0.05, 0.03, 0.02)); z <- c(1.1, 1.9, 1.4, 2.2, 3.1, 2.5, 3.6)
arranged <- permute(share); centred <- arranged - mean(share); scale <- sum((share - mean(share))^2)
slope_at <- function(shift) { w <- z - shift * share; tails(as.vector(centred %*% w) / scale, sum((share - mean(share)) * w) / scale) }
report("slope_7", slope_at, unname(coef(lm(z ~ share))[2]), 2, 5)
