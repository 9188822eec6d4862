# Witness for models/sense_danger.py.
# Repeat: Rscript tests/reference/sense_danger.R > tests/reference/sense_danger.txt
# Data: sine values, made again by the test. 90 bundles of vectors of 6 numbers and 1 to 5 negatives.
say <- function(name, value) cat(name, "\t", sprintf("%.15g", value), "\n", sep = "")
cosine <- function(a, b) sum(a * b) / sqrt(sum(a^2) * sum(b^2))
vector_of <- function(i, k) sin(1.3 * i + 2.1 * k + 0.7 * (1:6) * (1 + (i + k) %% 4))
N <- 90
danger <- sapply(1:N, function(i) {
  anchor <- vector_of(i, 0)
  near <- sapply(1:(1 + i %% 5), function(k) cosine(anchor, vector_of(i, 1 + k)))
  max(near) - cosine(anchor, vector_of(i, 1))
})
for (i in 1:N) say(paste0("danger_", i), danger[i])

# Percentiles of type 7 and tiers: of these scores, and of rounded ones, many of which are equal
for (case in list(list("exact", danger), list("rounded", round(danger, 1)), list("two", danger[1:2]))) {
  q <- quantile(case[[2]], c(0.85, 0.97), type = 7, names = FALSE)
  tier <- ifelse(case[[2]] >= q[2], 3, ifelse(case[[2]] >= q[1], 2, 1))
  say(paste0(case[[1]], "_p85"), q[1]); say(paste0(case[[1]], "_p97"), q[2])
  for (i in seq_along(tier)) say(paste0(case[[1]], "_tier_", i), tier[i])
}
