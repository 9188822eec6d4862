# Witness for stats/two_way_bootstrap.py, stats/sense_power.py and the legacy row of stats/sense_rows.py.
# Repeat: Rscript tests/reference/two_way.R > tests/reference/two_way.txt
# Data: sine values, so that the test can make them again: 9 seeds x 12 lemmas, lemmas of 1 to 4 items.
say <- function(name, value) cat(name, "\t", sprintf("%.15g", value), "\n", sep = "")
S <- 9; L <- 12
n <- 1 + (0:(L - 1)) %% 4
T <- outer(1:S, 1:L, function(s, l) n[l] * (0.3 + 0.2 * sin(3 * s) + 0.3 * sin(5 * l) + 0.4 * sin(2.1 * s * l)))

# Mean squares by aov, of the linearised values z = (T - n m) L / N, once a cell.
table_of <- function(T, n) {
  m <- sum(T) / (nrow(T) * sum(n))
  z <- sweep(T, 2, n * m) * ncol(T) / sum(n)
  d <- data.frame(z = as.vector(z), s = factor(row(z)), l = factor(col(z)))
  c(m, summary(aov(z ~ s + l, data = d))[[1]][["Mean Sq"]])
}
data <- table_of(T, n)
for (i in 1:4) say(c("mean", "ms_seed", "ms_lemma", "ms_rest")[i], data[i])
v <- max(sum(data[2:3]) - data[4], data[2], data[3]) / (S * L)
df <- (sum(data[2:3]) - data[4])^2 / (data[2]^2 / (S - 1) + data[3]^2 / (L - 1) + data[4]^2 / ((S - 1) * (L - 1)))
say("se", sqrt(v)); say("df", df)

# The same of drawn tables, written out with their repeated rows and columns. A linear congruential generator,
# the test makes the same draws.
x <- 42
draw <- function(size) { x <<- (16807 * x) %% 2147483647; floor(size * x / 2147483647) + 1 }
R <- 2000
t_star <- numeric(R); m_star <- numeric(R)
for (r in 1:R) {
  rows <- replicate(S, draw(S)); cols <- replicate(L, draw(L))
  m <- sum(T[rows, cols]) / (S * sum(n[cols]))
  z <- sweep(T[rows, cols], 2, n[cols] * m) * L / sum(n[cols])
  a <- L * sum((rowMeans(z) - mean(z))^2) / (S - 1)
  b <- S * sum((colMeans(z) - mean(z))^2) / (L - 1)
  e <- sum((z - outer(rowMeans(z), colMeans(z), "+") + mean(z))^2) / ((S - 1) * (L - 1))
  if (r <= 3) {
    by_aov <- table_of(T[rows, cols], n[cols])
    stopifnot(isTRUE(all.equal(by_aov, c(m, a, b, e))))
    for (i in 1:4) say(paste0(c("mean", "ms_seed", "ms_lemma", "ms_rest")[i], "_", r), by_aov[i])
  }
  m_star[r] <- m; t_star[r] <- (m - data[1]) / sqrt(max(a + b - e, a, b) / (S * L))
}
t <- data[1] / sqrt(v)
say("p_greater", (sum(t_star >= t) + 1) / (R + 1)); say("p_less", (sum(t_star <= t) + 1) / (R + 1))
say("p_greater_.2", (sum(t_star >= (data[1] - 0.2) / sqrt(v)) + 1) / (R + 1))
# interval: nulls that the two-sided p does not reject, by search over the nulls at which p changes
nulls <- sort(data[1] - t_star * sqrt(v))
p_two <- sapply(nulls, function(h) {
  u <- (data[1] - h) / sqrt(v)
  2 * (min(sum(t_star >= u - 1e-9), sum(t_star <= u + 1e-9)) + 1) / (R + 1)
})
say("low", min(nulls[p_two > 0.05])); say("high", max(nulls[p_two > 0.05]))
say("percentile_low", quantile(m_star, 0.025)); say("percentile_high", quantile(m_star, 0.975))

# Owen's pigeonhole variance of the draws: closed form for a balanced table, by hand.
Z <- outer(1:S, 1:L, function(s, l) 0.2 * sin(3 * s) + 0.3 * sin(5 * l) + 0.4 * sin(2.1 * s * l))
r2 <- mean((rowMeans(Z) - mean(Z))^2); c2 <- mean((colMeans(Z) - mean(Z))^2)
i2 <- mean((Z - outer(rowMeans(Z), colMeans(Z), "+") + mean(Z))^2)
say("owen_variance", r2 / S + c2 / L + i2 / (S * L))  # exact variance of a mean over drawn rows and columns

# Student's t beside the draws
say("t_greater", pt(t, df, lower.tail = FALSE)); say("t_less", pt(t, df))
say("t_greater_.2", pt((data[1] - 0.2) / sqrt(v), df, lower.tail = FALSE))
say("t_low", data[1] - qt(0.975, df) * sqrt(v)); say("t_high", data[1] + qt(0.975, df) * sqrt(v))

# and of few seeds on the same table
few <- table_of(T[1:4, ], n)
total <- few[2] + few[3] - few[4]
stopifnot(total > max(few[2:3]))
few_df <- total^2 / (few[2]^2 / 3 + few[3]^2 / (L - 1) + few[4]^2 / (3 * (L - 1)))
few_se <- sqrt(total / (4 * L))
say("few_mean", few[1]); say("few_se", few_se); say("few_df", few_df)
say("few_p", 2 * pt(-abs(few[1] / few_se), few_df))
say("few_low", few[1] - qt(0.975, few_df) * few_se); say("few_high", few[1] + qt(0.975, few_df) * few_se)

# Power table: expected mean squares of another design, the components being those of `data`.
rest <- data[4]; of_seed <- (data[2] - rest) / L; of_lemma <- (data[3] - rest) / S
stopifnot(of_seed > 0, of_lemma > 0)
for (s2 in c(3, 10, 40)) for (l2 in c(60, 240)) {
  a <- rest + l2 * of_seed; b <- rest + s2 * of_lemma; q <- a + b - rest
  d2 <- q^2 / (a^2 / (s2 - 1) + b^2 / (l2 - 1) + rest^2 / ((s2 - 1) * (l2 - 1))); se <- sqrt(q / (s2 * l2))
  power <- function(delta) {
    c <- qt(0.975, d2)
    pt(c, d2, delta / se, lower.tail = FALSE) + pt(-c, d2, delta / se)
  }
  say(paste0("plan_se_", s2, "_", l2), se); say(paste0("plan_df_", s2, "_", l2), d2)
  say(paste0("plan_mde_", s2, "_", l2), uniroot(function(x) power(x) - 0.8, c(0, 30 * se), tol = 1e-12)$root)
}

# The earlier rule with three seeds
for (k in c(3, 5, 10)) say(paste0("critical_ratio_", k), qt(0.975, k - 1) / sqrt(k))
say("power_ratio_3", power.t.test(n = 3, power = 0.8, type = "one.sample", strict = TRUE, sd = 1)$delta)
b3 <- c(0.34, 0.36, 0.35); a3 <- c(0.31, 0.30, 0.33)
legacy <- t.test(b3, a3, paired = TRUE)
say("legacy_p", legacy$p.value); say("legacy_low", legacy$conf.int[1]); say("legacy_high", legacy$conf.int[2])
say("legacy_ratio", mean(b3 - a3) / sd(b3 - a3))
