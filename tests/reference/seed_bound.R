# Witness for stats/seed_distribution.py data_processing_rows: most that seeds could do to a mean.
# Repeat: Rscript tests/reference/seed_bound.R > tests/reference/seed_bound.txt
# Distance from the uniform distribution on 32 bits: half the sum of |difference of probabilities| over
# classes of seeds that are equally likely under both.
sources <- list(PRNG = c("prng", NA), TRNG = c("trng", NA), ONE = c("constant", NA),
                SHORT = c("short_range", NA), COARSE = c("quantised8", NA),
                FAIR = c("biased_bits", 0), SLIGHT = c("biased_bits", 0.001),
                BIASED = c("biased_bits", 0.05), STRONG = c("biased_bits", 0.4), ONES = c("biased_bits", 0.5))
ranges <- c(distinct_2 = 1, length_words = 60, centred = 2.5)
# Probabilities of the classes: of values in and out of a support of k, or of numbers of ones.
classes <- function(kind, dose) {
  support <- c(constant = 1, short_range = 1001, quantised8 = 256)[kind]
  p <- 0.5 + as.numeric(dose)
  if (kind == "biased_bits") list(seed = dbinom(0:32, 32, p), fair = dbinom(0:32, 32, 0.5))
  else if (is.na(support)) list(seed = 1, fair = 1)
  else list(seed = c(1, 0), fair = c(support, 2^32 - support) / 2^32)
}
distance <- sapply(sources, function(s) with(classes(s[1], s[2]), sum(abs(seed - fair)) / 2))
for (name in names(sources)) {
  cat("distance", name, sprintf("%.15g", distance[name]), "\n")
  # No metric does better and one attains it: of metrics from 0 to 1, the indicator of the likelier classes.
  of <- classes(sources[[name]][1], sources[[name]][2])
  attained <- sum((of$seed - of$fair)[of$seed > of$fair])
  stopifnot(isTRUE(all.equal(attained, distance[[name]], tolerance = 1e-12)))
  dose <- as.numeric(sources[[name]][2])
  if (is.na(dose)) next
  by_ones <- max(pbinom(0:32, 32, 0.5) - pbinom(0:32, 32, 0.5 + dose))   # Kolmogorov's of the numbers of ones
  stopifnot(isTRUE(all.equal(by_ones, distance[[name]], tolerance = 1e-12)))
}
for (pair in combn(names(sources), 2, simplify = FALSE)) for (metric in names(ranges))
  cat("bound", paste(pair, collapse = "-"), metric,
      sprintf("%.15g", ranges[metric] * min(1, sum(distance[pair]))), "\n")
# Two biased sources: the bound is the sum of their distances, at least the distance of the two.
two <- function(a, b) sum(abs(dbinom(0:32, 32, 0.5 + a) - dbinom(0:32, 32, 0.5 + b))) / 2
stopifnot(two(0.001, 0.05) <= sum(distance[c("SLIGHT", "BIASED")]), two(0.05, 0.4) <= 1)
cat("#", R.version.string, "\n")
