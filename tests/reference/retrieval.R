# Witness for stats/retrieval.py and stats/coherence.py.
# Repeat: Rscript tests/reference/retrieval.R > tests/reference/retrieval.txt
# Data: sine values rounded to one digit, so that ties occur, made again by the test.
say <- function(name, value) cat(name, "\t", sprintf("%.15g", value), "\n", sep = "")
I <- 40
rank <- margin <- expected1 <- expected3 <- numeric(I)
for (i in 1:I) {
  size <- 3 + i %% 8
  s <- round(sin(1.7 * i + 2.3 * (1:size)), 1)
  right <- sort(unique(c(1 + (3 * i) %% size, if (i %% 3 == 0) 1 + (5 * i) %% size)))
  order_of <- order(-s, seq_along(s))                     # highest first, ties in file order
  rank[i] <- min(match(right, order_of))
  margin[i] <- max(s[right]) - max(s[-right])
  # ties by chance: all candidates strictly above stay above, those at the best level are shuffled
  best <- max(s[right]); above <- sum(s > best); level <- sum(s == best); lc <- sum(s[right] == best)
  chance <- function(k) if (above >= k) 0 else 1 - dhyper(0, lc, level - lc, min(k - above, level))
  expected1[i] <- chance(1); expected3[i] <- chance(3)
}
say("top1", mean(rank <= 1)); say("top3", mean(rank <= 3)); say("mrr", mean(1 / rank)); say("rank", mean(rank))
say("expected1", mean(expected1)); say("expected3", mean(expected3))
say("margin_mean", mean(margin)); say("margin_sd", sd(margin))
for (q in c(5, 50, 95)) say(paste0("margin_p", q), quantile(margin, q / 100, type = 7))

# Chance of the exact order: hypergeometric, and the expected reciprocal rank by all placements.
for (n in c(4, 7, 10)) for (c in c(1, 2, 3)) {
  for (k in c(1, 3)) say(sprintf("chance_%d_%d_%d", n, c, k), 1 - dhyper(0, c, n - c, k))
  first <- combn(n, c, min)
  say(sprintf("chance_mrr_%d_%d", n, c), mean(1 / first))
}

# Killers: Wilson's interval
for (case in list(c(2, 8), c(0, 15), c(37, 120))) {
  ci <- suppressWarnings(prop.test(case[1], case[2], correct = FALSE)$conf.int)
  say(sprintf("wilson_%d_%d_low", case[1], case[2]), ci[1]); say(sprintf("wilson_%d_%d_high", case[1], case[2]), ci[2])
}

# Coherence: 30 items of 2 or 3 contexts, three senses
steps <- right <- both <- decided <- gold <- final <- 0
for (i in 1:30) {
  len <- 2 + i %% 2
  g <- (i * (1:len) + (1:len)^2) %% 3
  d <- ifelse(sin(2.9 * i + 1.3 * (1:len)) > -0.3, g, (g + 1) %% 3)
  steps <- steps + len; right <- right + sum(g == d); final <- final + (g[len] == d[len])
  mg <- diff(g) != 0; md <- diff(d) != 0
  both <- both + sum(mg & md); decided <- decided + sum(md); gold <- gold + sum(mg)
}
p <- both / decided; r <- both / gold
say("step_accuracy", right / steps); say("final", final / 30)
say("precision", p); say("recall", r); say("f1", 2 * p * r / (p + r))
