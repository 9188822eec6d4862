# What a state holds: ridge by the normal equations on held-out blocks, prcomp, Spearman's correlation, t.test.
# Run in this folder: Rscript state_probes.R > state_probes.txt
# 60 states of 4 dimensions from sine values; the second case has a dimension that never moves.
out <- function(name, value) cat(sprintf("%s\t%.12g\n", name, value))
n <- 60; t <- 0:(n - 1); ridge <- 0.01
reading <- function(state, target, degree, gap) {
  if (degree > 0) { base <- outer(t, 1:degree, "^"); state <- resid(lm(state ~ base)); target <- resid(lm(target ~ base)) }
  edges <- seq(0, n, length.out = 6); left <- 0; whole <- 0
  for (f in 1:5) {
    held <- t >= edges[f] & t < edges[f + 1]; train <- t < edges[f] - gap | t >= edges[f + 1] + gap
    m <- colMeans(state[train, ]); spread <- sqrt(colMeans(sweep(state[train, ], 2, m)^2)); use <- spread > 1e-9
    X <- scale(state[train, use], m[use], spread[use]); H <- scale(state[held, use], m[use], spread[use])
    y <- target[train] - mean(target[train]); off <- target[held] - mean(target[train])
    b <- solve(t(X) %*% X + sum(train) * ridge * diag(sum(use)), t(X) %*% y)
    left <- left + sum((off - H %*% b)^2); whole <- whole + sum(off^2)
  }
  1 - left / whole
}
state <- sapply(1:4, function(k) sin(0.37 * t * k) + 0.02 * k * t + 0.3 * cos(t^2 * k))
target <- state %*% c(1, -0.5, 0.2, 0) + 0.5 * sin(t^2) + 0.01 * t
still <- cbind(state[, 1:3], 5)
out("r2_0_0", reading(state, target, 0, 0)); out("r2_3_0", reading(state, target, 3, 0)); out("r2_1_2", reading(state, target, 1, 2))
out("r2_still", reading(still, target, 0, 1))
for (case in 1:2) {
  path <- list(state, still)[[case]]; found <- prcomp(path)
  share <- found$sdev / sum(found$sdev); share <- share[share > 1e-12]
  out(paste0("rank_", case), exp(-sum(share * log(share))))
  out(paste0("pc1_", case), abs(cor(found$x[, 1], t, method = "spearman")))
}
# Targets permuted over four seeds: every permutation of the columns of a table of readings.
table <- outer(1:4, 1:4, function(i, j) 0.3 * (i == j) + 0.4 * sin(3 * i + 5 * j))
orders <- as.matrix(expand.grid(1:4, 1:4, 1:4, 1:4)); orders <- orders[apply(orders, 1, function(o) length(unique(o)) == 4), ]
sums <- apply(orders, 1, function(o) sum(table[cbind(1:4, o)]))
out("own_seed_p", mean(sums >= sum(diag(table)) - 1e-9))
