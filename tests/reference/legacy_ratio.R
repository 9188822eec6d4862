# Witness for stats/legacy_disparity.py legacy_ratio_interval: ratio of mean degradations of drawn documents.
# Repeat: Rscript tests/reference/legacy_ratio.R > tests/reference/legacy_ratio.txt
# Data: sine values, 5 languages (the last 3 low-resource), 24 sentences of 8 documents. Draw k takes document
# 1 + floor(8 x_k / m) with x_{k+1} = 16807 x_k mod m, m = 2^31 - 1, x_0 = 42: 2000 x 8 draws. The sentences
# of the drawn documents are written out, as often as drawn.
suppressPackageStartupMessages(library(boot))
say <- function(case, name, x) cat(case, "_", name, "\t", sprintf("%.12g", x), "\n", sep = "")
D <- 8; R <- 2000; L <- 5; low <- 3:5; high <- 1:2
document <- rep(1:D, c(3, 1, 4, 2, 5, 2, 3, 4)); S <- length(document)
x <- 42
draw <- function() { x <<- (16807 * x) %% 2147483647; 1 + floor(D * x / 2147483647) }
drawn <- matrix(replicate(R * D, draw()), nrow = R, byrow = TRUE)
sentences <- split(1:S, document)
resample <- lapply(1:R, function(r) unlist(sentences[drawn[r, ]], use.names = FALSE))

each <- function(f) outer(1:L, 1:S, f)
before <- each(function(l, s) 45 + 3 * l + 15 * sin(1.3 * l * s))       # total bits of a sentence
tokens <- each(function(l, s) 12 + (5 * l + 3 * s) %% 7)

means_of <- function(after) function(picked) {
  perplexity <- function(bits) 2^(rowSums(bits[, picked]) / rowSums(tokens[, picked]))
  percent <- 100 * (perplexity(after) - perplexity(before)) / perplexity(before)
  c(low = mean(percent[low]), high = mean(percent[high]))
}
study <- function(case, after, alpha) {
  data <- means_of(after)(1:S)
  stars <- t(sapply(resample, means_of(after)))
  level <- pnorm(-sqrt(D / (D - 1)) * qt(1 - alpha / 2, D - 1))
  ends <- function(v) quantile(v, c(level, 1 - level), type = 6, names = FALSE)
  say(case, "alpha", alpha)
  say(case, "high_low", ends(stars[, "high"])[1]); say(case, "high_high", ends(stars[, "high"])[2])
  say(case, "draws_at_or_below_zero", sum(stars[, "high"] <= 0))
  if (ends(stars[, "high"])[1] <= 0) return(invisible())              # undefined
  ratio <- ifelse(stars[, "high"] > 0, stars[, "low"] / stars[, "high"], sign(stars[, "low"]) * Inf)
  say(case, "estimate", data[["low"]] / data[["high"]])
  say(case, "low", ends(ratio)[1]); say(case, "high", ends(ratio)[2])
  if (all(is.finite(ratio))) {
    made <- structure(list(t0 = data[["low"]] / data[["high"]], t = cbind(ratio), R = R), class = "boot")
    ci <- boot.ci(made, conf = 1 - 2 * level, type = "perc")$percent
    say(case, "boot_low", ci[4]); say(case, "boot_high", ci[5])
  }
}
cost <- function(shift, wave) before + each(function(l, s)
  ifelse(l <= 2, shift, 2 + l) + wave * sin(2.7 * l + 0.9 * document[s] + 0.1 * s))
study("plain", cost(1.5, 0.8), 0.05)
study("ninety", cost(1.5, 0.8), 0.1)
study("near_zero", cost(0.2, 1.2), 0.05)
study("touches_zero", cost(0.1, 1.2), 0.05)
cat("#", R.version.string, "boot", as.character(packageVersion("boot")), "\n")
