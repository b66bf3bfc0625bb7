"""Independent answers to the exercises of chapter 13, and slips that the cases must refuse."""


def _list_of_times(T):
    """Run the loop of section 1 with the times themselves: what is appended after the step at index i is x_i."""
    images = []
    for index in reversed(range(T)):
        after_the_step = index  # in the paper's time: the step at t = index + 1 makes x_index
        images.append(after_the_step)
    return images


RIGHT = {
    "13.1": lambda lam, g: 1 / (1 + lam * (1 / g - 1)),
    "13.2": lambda k, every, T: _list_of_times(T)[every * k] - 1,
    "13.3": lambda alpha_bar_t, var_0: (1 + (1 / alpha_bar_t - 1) / var_0) ** -0.5,
}
SLIPS = {
    "13.1": [
        lambda lam, g: lam * g / (lam * g + 1 - g),  # SNR = lambda g / (1 - g)
        lambda lam, g: g / (lam * (1 - g)),  # the SNR itself
        lambda lam, g: (1 - g) / (1 - g + lam * g),  # known and unknown swapped
    ],
    "13.2": [
        lambda k, every, T: T - 1 - every * k,  # the bug to find
        lambda k, every, T: T - every * k,
        lambda k, every, T: T - 2 - k,
        lambda k, every, T: T - 2 - every * (k + 1),
    ],
    "13.3": [
        lambda alpha_bar_t, var_0: alpha_bar_t * var_0 / (alpha_bar_t * var_0 + 1 - alpha_bar_t),  # without the root
        lambda alpha_bar_t, var_0: alpha_bar_t**0.5,  # as if the data had variance 1
        lambda alpha_bar_t, var_0: 1.0,  # the same end
    ],
}
