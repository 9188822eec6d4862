# Composite metrics: angles by acos, distance by scale, z by hand, rows by t.test.
# Run in this folder: Rscript composite.R > composite.txt
# Three seeds of 60 steps in 3 dimensions from sine values; probes at every third step, window at 40 to 47 (from 0).
out <- function(name, value) cat(sprintf("%s\t%.12g\n", name, value))
n <- 60; t <- 0:(n - 1); inside <- t >= 40 & t < 48; clean <- !inside; before <- t >= 20 & t < 40; kept <- clean & t >= 6
standard <- function(v) (v - mean(v[kept], na.rm = TRUE)) / sd(v[kept], na.rm = TRUE)
difference <- sapply(1:3, function(s) {
  path <- sapply(1:3, function(k) sin(0.7 * t * k + s) + 0.4 * cos(t^2 * k) + 0.8 * inside)
  entropy <- cos(1.9 * t + s) + 0.5 * inside; effect <- 1 + sin(2.1 * t * s) - 0.4 * inside; effect[t %% 3 != 0] <- NA
  step <- diff(path); length <- sqrt(rowSums(step^2)); velocity <- c(NA, length)
  turn <- rowSums(step[-1, ] * step[-nrow(step), ]) / (length[-1] * length[-length(length)])
  curvature <- c(NA, NA, acos(turn) / pi)
  home <- scale(path[kept, ])
  distance <- sqrt(rowMeans(scale(path, attr(home, "scaled:center"), attr(home, "scaled:scale"))^2))
  D <- standard(distance); S <- standard(velocity); U <- standard(entropy); C <- standard(-effect)
  V <- -(D + S + U + C); R <- rep(NA, n); probes <- which(!is.na(V)); R[probes[-1]] <- abs(diff(V[probes]))
  intensity <- plogis(0.5 * (standard(R) + standard(curvature)))
  all <- cbind(velocity, curvature, distance, valence = V, intensity, D_z = D, S_z = S, U_z = U, C_z = C,
               R = R, R_z = standard(R), kappa_z = standard(curvature))
  if (s == 2) for (i in c(22, 43, 58)) for (name in colnames(all)) out(sprintf("%s_%d", name, i - 1), all[i, name])
  colMeans(all[inside, ], na.rm = TRUE) - colMeans(all[before, ], na.rm = TRUE)
})
for (name in rownames(difference)) {
  test <- t.test(difference[name, ])
  out(paste0("mean_", name), test$estimate); out(paste0("low_", name), test$conf.int[1]); out(paste0("p_", name), test$p.value)
}
holm <- p.adjust(apply(difference, 1, function(d) t.test(d)$p.value), "holm")
for (name in rownames(difference)) out(paste0("holm_", name), holm[name])
