# Wilson intervals and equal shares. Run in this folder: Rscript integrity_proportions.R > integrity_proportions.txt
emit <- function(what, a, b, c) cat(sprintf("%s\t%s\t%.15g\t%.15g\n", what, a, b, c))
cat("what\tcase\tfirst\tsecond\n")
for (case in list(c(0, 10), c(1, 10), c(47, 48), c(399, 400), c(95, 100), c(400, 400), c(13, 960))) {
  interval <- suppressWarnings(prop.test(case[1], case[2], correct = FALSE))$conf.int
  emit("wilson", paste(case, collapse = "/"), interval[1], interval[2])
}
tables <- list(c(20, 30, 100, 100), c(12, 9, 31, 150, 160, 170), c(0, 0, 5, 48, 48, 48), c(3, 0, 1, 0, 7, 60, 60, 60, 60, 60))
set.seed(1)
for (t in tables) {
  k <- length(t) / 2
  m <- rbind(t[1:k], t[(k + 1):(2 * k)] - t[1:k])
  large <- suppressWarnings(chisq.test(m, correct = FALSE))
  emit("chi_square", paste(t, collapse = "/"), large$statistic, large$p.value)
  emit("random_tables", paste(t, collapse = "/"), large$statistic, chisq.test(m, simulate.p.value = TRUE, B = 1e6)$p.value)
}
