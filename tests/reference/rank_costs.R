# What rank plans cost on Mistral-7B's shapes, how many arrangements there are, the reverse order, nearest ranks.
# Run in this folder: Rscript rank_costs.R > rank_costs.txt
show <- function(...) cat(paste(..., sep = "\t"), "\n", sep = "")
rows <- c(q = 4096, k = 1024, v = 1024, o = 4096, gate = 14336, up = 14336, down = 4096)
columns <- c(q = 4096, k = 4096, v = 4096, o = 4096, gate = 4096, up = 4096, down = 14336)
# Rank of module m (0..6) in layer l (0..31): 2^((3 m + 5 l + m l) mod 7).
grid <- expand.grid(m = 0:6, l = 0:31)
rank <- 2^((3 * grid$m + 5 * grid$l + grid$m * grid$l) %% 7)
cost <- (rows + columns)[grid$m + 1]
# Parameters counted by factor: A is r x columns, B is rows x r.
show("mistral", "parameters", sprintf("%.0f", sum(rank * columns[grid$m + 1]) + sum(rank * rows[grid$m + 1])))
show("mistral", "one_rank", sprintf("%.0f", sum(cost)))
candidates <- 1:64
show("mistral", "uniform_equal", candidates[which.min(abs(candidates * sum(cost) - sum(rank * cost)))])
# Arrangements of small groups and the least sum of products with the given order, by listing every order.
orders <- function(v) if (length(v) < 2) list(v) else
  do.call(c, lapply(seq_along(v), function(i) lapply(orders(v[-i]), function(rest) c(v[i], rest))))
groups <- list(c(1, 2, 2, 4, 8), c(4, 4, 4), c(1, 2, 4, 8))
for (g in groups) {
  all <- orders(g)
  products <- sapply(all, function(o) sum(o * g))
  show("group", paste(g, collapse = " "), length(unique(sapply(all, paste, collapse = " "))), min(products))
}
