# Witness for stats/factorial.py: lm with sum contrasts, and aov of an effect's table over seeds and lemmas.
# Repeat: Rscript tests/reference/factorial.R > tests/reference/factorial.txt
# Data: sine values, so that the test can make them again: 2^3 arms, 6 seeds, 8 lemmas of 1 to 3 items.
say <- function(name, value) cat(name, "\t", sprintf("%.15g", value), "\n", sep = "")
S <- 6; L <- 8
d <- expand.grid(l = 1:L, s = 1:S, c = c(-1, 1), b = c(-1, 1), a = c(-1, 1))
d$n <- 1 + (d$l - 1) %% 3
d$y <- with(d, 0.3 + 0.1 * a - 0.03 * b + 0.05 * a * b + 0.1 * sin(3 * s + a) + 0.1 * sin(5 * l - 2 * b) +
  0.2 * sin(2.1 * s * l + a + 3 * b + 7 * c))
for (f in c("a", "b", "c")) {
  d[[paste0("f", f)]] <- factor(ifelse(d[[f]] > 0, "high", "low"), levels = c("high", "low"))
}
fit <- lm(y ~ fa * fb * fc, data = d, weights = n, contrasts = list(fa = "contr.sum", fb = "contr.sum", fc = "contr.sum"))
k <- coef(fit)
for (name in c("a", "b", "c")) say(name, 2 * k[[paste0("f", name, "1")]])
for (pair in list(c("a", "b"), c("a", "c"), c("b", "c"))) {
  say(paste(pair, collapse = " x "), 2 * k[[paste0("f", pair[1], "1:f", pair[2], "1")]])
}
# The same as cell means, and the test of a main effect: its table seeds x lemmas, linearised, by aov.
for (name in c("a", "b", "c")) {
  high <- d[d[[name]] > 0, ]; low <- d[d[[name]] < 0, ]
  say(paste0(name, "_means"), weighted.mean(high$y, high$n) - weighted.mean(low$y, low$n))
  T <- tapply(high$y * high$n, high[c("s", "l")], sum) / 4 - tapply(low$y * low$n, low[c("s", "l")], sum) / 4
  n <- 1 + (0:(L - 1)) %% 3
  m <- sum(T) / (S * sum(n))
  z <- sweep(T, 2, n * m) * L / sum(n)
  ms <- summary(aov(z ~ s + l, data = data.frame(z = as.vector(z), s = factor(row(z)), l = factor(col(z)))))[[1]][["Mean Sq"]]
  v <- max(ms[1] + ms[2] - ms[3], ms[1], ms[2]) / (S * L)
  total <- ms[1] + ms[2] - ms[3]
  df <- if (total > max(ms[1:2])) total^2 / (ms[1]^2 / (S - 1) + ms[2]^2 / (L - 1) + ms[3]^2 / ((S - 1) * (L - 1))) else if (ms[1] >= ms[2]) S - 1 else L - 1
  say(paste0(name, "_t"), m / sqrt(v)); say(paste0(name, "_df"), df); say(paste0(name, "_p_t"), 2 * pt(-abs(m) / sqrt(v), df))
}
