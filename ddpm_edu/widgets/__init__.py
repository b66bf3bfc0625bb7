"""Sliders. Each is a plain function, state -> data, that is tested without a browser, and a panel that shows the data.

A module for each topic; `panels` holds what they are put together from.
"""

from ddpm_edu.widgets.forward import noise_slider, noised, schedule_curves, schedule_slider
from ddpm_edu.widgets.panels import Curves, Frames, Panel

__all__ = ["Curves", "Frames", "Panel", "noise_slider", "noised", "schedule_curves", "schedule_slider"]
