"""Chapter 11: the velocity of any path, a step that does not arrive, Euler's method on normal data."""

from ddpm_edu.exercises.exercise import Exercise


def _velocity_factors(a: float, sigma: float, a_dot: float, sigma_dot: float) -> tuple[float, float]:
    return a_dot / a, -sigma * (sigma_dot - a_dot * sigma / a)


def _flow_step(x: float, x0_hat: float, tau: float, h: float) -> float:
    return x - h * (x - x0_hat) / tau


def _std_after(s: float, K: int) -> float:
    std = 1.0
    for k in range(K, 0, -1):
        tau = k / K
        var = (1 - tau) ** 2 * s**2 + tau**2
        std *= 1 - (tau - (1 - tau) * s**2) / (var * K)
    return std


EXERCISES = {
    "11.1": Exercise(
        _velocity_factors,
        [
            {"a": 0.3, "sigma": 0.7, "a_dot": -1.0, "sigma_dot": 1.0},
            {"a": 0.6, "sigma": 0.8, "a_dot": -0.9, "sigma_dot": 0.675},
            {"a": 1.0, "sigma": 2.0, "a_dot": 0.0, "sigma_dot": 3.0},
        ],
        hint="u = a_dot x0* + sigma_dot eps* by (11.3); replace x0* by (x - sigma eps*) / a, then eps* by -sigma score",
    ),
    "11.2": Exercise(
        _flow_step,
        [
            {"x": 1.0, "x0_hat": 0.2, "tau": 1.0, "h": 0.25},
            {"x": 1.0, "x0_hat": 0.2, "tau": 0.5, "h": 0.25},
            {"x": -0.4, "x0_hat": 0.6, "tau": 0.25, "h": 0.25},
        ],
        hint="the velocity from the mean picture is (x - x0_hat) / tau; the last step must land on x0_hat",
    ),
    "11.3": Exercise(
        _std_after,
        [{"s": 0.5, "K": 1}, {"s": 0.5, "K": 2}, {"s": 1.0, "K": 4}, {"s": 0.2, "K": 50}],
        hint="u is (tau - (1 - tau) s^2) / ((1 - tau)^2 s^2 + tau^2) times x; each step multiplies by 1 - that / K",
    ),
}
