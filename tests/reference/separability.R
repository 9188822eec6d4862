# Witness for stats/discriminant.py, stats/held_out_windows.py and stats/regime_classes.py: MASS::lda, wilcox.test.
# Repeat: Rscript tests/reference/separability.R > tests/reference/separability.txt
# Data: sine values, so that the test can make them again: seeds 1-2, regimes 1-2, windows 1-3, 6 steps, 3 features.
library(MASS)
say <- function(name, value) cat(name, "\t", sprintf("%.15g", value), "\n", sep = "")
STEPS <- 6; FEATURES <- 3
block <- function(s, r, k, twin) {
  x <- outer(1:STEPS, 1:FEATURES, function(t, f) {
    sin(3.7 * t * f + 5 * k + 2 * s + 11 * r + 7 * twin * f) + 0.5 * cos(1.3 * t + f * f + k * s)
  })
  if (!twin) x <- x + rep(c(0.6, 0.3, -0.2) * c(1, r, r), each = STEPS)
  x
}
pair <- function(s, r, k) list(window = block(s, r, k, FALSE), twin = block(s, r, k, TRUE))
auc <- function(high, low) unname(suppressWarnings(wilcox.test(high, low))$statistic) / (length(high) * length(low))

# Area under the curve, with ties
say("auc_plain", auc(c(3.1, 0.2, 2.2, 5), c(1, 2, 0.1)))
say("auc_ties", auc(c(3, 2, 2, 1, 5), c(1, 2, 2, 0)))

# Posterior of two and of three classes at equal priors
one <- rbind(block(1, 1, 1, FALSE), block(1, 1, 1, TRUE)); two <- rep(c("a", "b"), each = STEPS)
fit <- lda(one, grouping = two, prior = c(0.5, 0.5))
post <- predict(fit, block(1, 1, 2, FALSE))$posterior[, 2]
for (t in 1:STEPS) say(paste0("posterior2_", t), post[t])
three <- rbind(one, block(1, 2, 1, FALSE))
fit <- lda(three, grouping = rep(c("a", "b", "c"), each = STEPS), prior = rep(1 / 3, 3))
post <- predict(fit, block(1, 1, 2, FALSE))$posterior
for (t in 1:STEPS) for (c in 1:3) say(paste0("posterior3_", t, "_", c), post[t, c])

# Mean AUC of held-out windows under each labelling; `moved` are the features that change sides
exchange <- function(p, yes, moved) {
  if (!yes) return(p)
  q <- p
  q$window[, moved] <- p$twin[, moved]; q$twin[, moved] <- p$window[, moved]
  q
}
held_out <- function(pairs) {
  mean(sapply(seq_along(pairs), function(k) {
    train <- pairs[-k]
    x <- rbind(do.call(rbind, lapply(train, `[[`, "window")), do.call(rbind, lapply(train, `[[`, "twin")))
    y <- rep(c("w", "z"), each = nrow(x) / 2)  # z: the twin
    fit <- lda(x, grouping = y, prior = c(0.5, 0.5))
    toward <- sign(sum((fit$means["w", ] - fit$means["z", ]) * fit$scaling[, 1]))
    score <- function(x) toward * (x %*% fit$scaling[, 1])
    auc(score(pairs[[k]]$window), score(pairs[[k]]$twin))
  }))
}
labels <- expand.grid(c(FALSE, TRUE), c(FALSE, TRUE), c(FALSE, TRUE))[, 3:1]  # the last window changes first
tables <- list()
for (kind in c("all", "third")) {
  moved <- if (kind == "all") 1:3 else 3
  tables[[kind]] <- sapply(1:2, function(s) {
    pairs <- lapply(1:3, function(k) pair(s, 1, k))
    sapply(1:nrow(labels), function(b) {
      held_out(lapply(1:3, function(k) exchange(pairs[[k]], labels[b, k], moved)))
    })
  })
  for (s in 1:2) for (b in 1:8) say(paste0("held_out_", kind, "_", s, "_", b), tables[[kind]][b, s])
  joint <- as.vector(outer(tables[[kind]][, 1], tables[[kind]][, 2], "+")) / 2
  say(paste0("p_", kind), mean(joint >= joint[1] - 1e-9))
  say(paste0("null_mean_", kind), mean(joint[-1]))
  say(paste0("null_low_", kind), quantile(joint[-1], 0.025))
  say(paste0("null_high_", kind), quantile(joint[-1], 0.975))
}
only <- sapply(1:2, function(s) {
  held_out(lapply(1:3, function(k) lapply(pair(s, 1, k), function(x) x[, 1:2])))
})
adds <- t.test(tables$third[1, ] - only)
say("adds", adds$estimate); say("adds_low", adds$conf.int[1]); say("adds_high", adds$conf.int[2])

# Confusion of two regimes and clean steps, window k of each and both twins left out
for (s in 1:2) {
  confusion <- matrix(0, 3, 3)
  for (k in 1:3) {
    parts <- function(ks) {
      x <- NULL; y <- NULL
      for (j in ks) for (r in 1:2) {
        p <- pair(s, r, j)
        x <- rbind(x, p$window, p$twin); y <- c(y, rep(c(r, 3), each = STEPS))
      }
      list(x = x, y = y)
    }
    train <- parts(setdiff(1:3, k)); test <- parts(k)
    fit <- lda(train$x, grouping = train$y, prior = rep(1 / 3, 3))
    found <- as.integer(as.character(predict(fit, test$x)$class))
    for (i in seq_along(found)) confusion[test$y[i], found[i]] <- confusion[test$y[i], found[i]] + 1
  }
  for (a in 1:3) for (b in 1:3) say(paste0("confusion_", s, "_", a, "_", b), confusion[a, b])
  say(paste0("balanced_", s), mean(diag(confusion) / rowSums(confusion)))
}
