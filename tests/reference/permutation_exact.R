# Exact stratified permutation test of two sources by full enumeration, and Welch statistics.
# Run in this folder: Rscript permutation_exact.R > permutation_exact.txt
# Three prompts with 4 + 3, 3 + 3 and 3 + 4 texts: 35 * 20 * 35 = 24500 arrangements of the labels.
y <- list(c(5.1, 4.2, 6.3, 5.8, 3.9, 4.4, 3.1), c(2.2, 3.8, 2.9, 1.7, 2.1, 3.3), c(7.7, 6.1, 6.9, 5.2, 6.6, 4.8, 7.0))
first <- list(1:4, 1:3, 1:3)
terms <- function(v, a) c(mean(v[a]) - mean(v[-a]), var(v[a]) / length(a) + var(v[-a]) / (length(v) - length(a)))
observed <- mapply(terms, y, first)
t_observed <- mean(observed[1, ]) / (sqrt(sum(observed[2, ])) / 3)
all_terms <- lapply(1:3, function(p) apply(combn(length(y[[p]]), length(first[[p]])), 2, function(a) terms(y[[p]], a)))
grid <- expand.grid(seq_len(ncol(all_terms[[1]])), seq_len(ncol(all_terms[[2]])), seq_len(ncol(all_terms[[3]])))
difference <- rowMeans(sapply(1:3, function(p) all_terms[[p]][1, grid[, p]]))
error <- sqrt(rowSums(sapply(1:3, function(p) all_terms[[p]][2, grid[, p]]))) / 3
cat(sprintf("arrangements\t%d\n", nrow(grid)))
cat(sprintf("estimate\t%.15g\n", mean(observed[1, ])))
cat(sprintf("statistic\t%.15g\n", t_observed))
cat(sprintf("p_exact\t%.15g\n", mean(abs(difference / error) >= abs(t_observed) * (1 - 1e-9))))
# One prompt, two sources: the statistic is Welch's t.
welch <- t.test(y[[1]][1:4], y[[1]][5:7])
cat(sprintf("welch_t\t%.15g\n", welch$statistic))
# One prompt, three sources: the statistic is the numerator of Welch's F.
v <- c(y[[1]], 8.1, 7.2, 9.9)
g <- factor(rep(c("a", "b", "c"), c(4, 3, 3)))
n <- tapply(v, g, length); m <- tapply(v, g, mean); w <- n / tapply(v, g, var)
h <- sum((1 - w / sum(w))^2 / (n - 1)) / (3^2 - 1)
cat(sprintf("welch_f_numerator\t%.15g\n", oneway.test(v ~ g)$statistic * (1 + 2 * (3 - 2) * h)))
