# Witness for stats/verification.py: pROC 1.x for DeLong and one threshold; pairs and thresholds one by one.
# Repeat: Rscript tests/reference/verification.R > tests/reference/verification.txt
# Data: a linear congruential generator, whole numbers over 100, so that the test can make the same with ties.
suppressPackageStartupMessages(library(pROC))
say <- function(name, value) cat(name, "\t", sprintf("%.15g", value), "\n", sep = "")
x <- 7
draw <- function(size) { x <<- (16807 * x) %% 2147483647; floor(size * x / 2147483647) }
N <- 60
genuine <- logical(N); cosine <- numeric(N); gap <- numeric(N); cluster <- numeric(N)
for (i in 1:N) {
  cluster[i] <- draw(14)
  genuine[i] <- draw(10) < 6
  cosine[i] <- (draw(50) + draw(50) + (if (genuine[i]) 20 else 0) + 2 * (cluster[i] %% 5)) / 100
  gap[i] <- (draw(30) + draw(30) - (if (genuine[i]) 15 else 30)) / 100
}
found <- roc(genuine, cosine, direction = "<", levels = c(FALSE, TRUE), quiet = TRUE)
A <- as.numeric(auc(found)); v <- var(found, method = "delong")
say("n_genuine", sum(genuine)); say("auc", A); say("se", sqrt(v))
say("low", plogis(qlogis(A) - qnorm(0.975) * sqrt(v) / (A * (1 - A))))
say("high", plogis(qlogis(A) + qnorm(0.975) * sqrt(v) / (A * (1 - A))))
w <- wilcox.test(cosine[genuine], cosine[!genuine], exact = FALSE)$statistic
say("mann_whitney", unname(w) / (sum(genuine) * sum(!genuine)))

# Obuchowski (1997): components from every pair, sums over clusters written out.
X <- cosine[genuine]; Y <- cosine[!genuine]
psi <- outer(X, Y, function(a, b) (a > b) + 0.5 * (a == b))
of_x <- cluster[genuine]; of_y <- cluster[!genuine]
s10 <- 0; s01 <- 0; s11 <- 0
for (k in unique(cluster)) {
  a <- sum(rowMeans(psi)[of_x == k]) - sum(of_x == k) * A
  b <- sum(colMeans(psi)[of_y == k]) - sum(of_y == k) * A
  s10 <- s10 + a^2; s01 <- s01 + b^2; s11 <- s11 + a * b
}
I10 <- length(unique(of_x)); I01 <- length(unique(of_y)); I <- length(unique(cluster))
m <- length(X); n <- length(Y)
S10 <- I10 / ((I10 - 1) * m) * s10; S01 <- I01 / ((I01 - 1) * n) * s01; S11 <- I / (I - 1) * s11
say("clustered_se", sqrt(S10 / m + S01 / n + 2 * S11 / (m * n)))

# One threshold: pROC's best Youden among its midpoints has the J of the best observed value.
best <- coords(found, "best", best.method = "youden", ret = c("sensitivity", "specificity"), transpose = FALSE)
say("one_youden", max(best$sensitivity + best$specificity) - 1)

# Two: every pair of observed values; the last of equal J in rising order is the highest cosine, then gap.
top <- -Inf
for (tc in sort(unique(cosine))) for (tg in sort(unique(gap))) {
  taken <- cosine >= tc & gap >= tg
  J <- sum(taken & genuine) * sum(!genuine) - sum(taken & !genuine) * sum(genuine)
  if (J >= top) { top <- J; at <- c(tc, tg) }
}
say("youden", top / (sum(genuine) * sum(!genuine))); say("cosine_least", at[1]); say("gap_least", at[2])
share <- function(name, taken) {
  for (kind in c("precision", "recall")) {
    of <- if (kind == "precision") sum(taken) else sum(genuine)
    ends <- suppressWarnings(prop.test(sum(taken & genuine), of, correct = FALSE))
    say(paste0(name, "_", kind), unname(ends$estimate))
    say(paste0(name, "_", kind, "_low"), ends$conf.int[1]); say(paste0(name, "_", kind, "_high"), ends$conf.int[2])
  }
}
share("chosen", cosine >= at[1] & gap >= at[2])
share("given", cosine >= 0.5 & gap >= 0.05)
