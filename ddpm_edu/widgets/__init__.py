"""Sliders. Each is a plain function, state -> data, that is tested without a browser, and a panel that shows the data.

A module for each topic; `panels` holds what they are put together from.
"""

from ddpm_edu.widgets.bound import bound_curves, bound_slider
from ddpm_edu.widgets.families import drawn_schedule
from ddpm_edu.widgets.flow import flow_paths, flow_slider
from ddpm_edu.widgets.forward import noise_slider, noised, schedule_curves, schedule_slider
from ddpm_edu.widgets.guidance import guidance_slider, guided_digits
from ddpm_edu.widgets.laboratory import schedule_laboratory
from ddpm_edu.widgets.langevin import langevin_curves, langevin_slider, langevin_walkers
from ddpm_edu.widgets.latent import elbo_curves, elbo_slider
from ddpm_edu.widgets.likelihood import kl_curves, kl_slider
from ddpm_edu.widgets.panels import Curves, Frames, Panel
from ddpm_edu.widgets.posterior import posterior_curves, posterior_slider
from ddpm_edu.widgets.predicted import Sheets, predicted_slider, predicted_state
from ddpm_edu.widgets.sampling import Points, chain_frame, chain_slider, sampler_points, sampler_slider
from ddpm_edu.widgets.training import ema_curves, ema_slider
from ddpm_edu.widgets.weights import weight_curves, weight_slider

__all__ = [
    "Curves",
    "Frames",
    "Panel",
    "Points",
    "Sheets",
    "bound_curves",
    "bound_slider",
    "chain_frame",
    "chain_slider",
    "drawn_schedule",
    "elbo_curves",
    "elbo_slider",
    "ema_curves",
    "ema_slider",
    "flow_paths",
    "flow_slider",
    "guidance_slider",
    "guided_digits",
    "kl_curves",
    "kl_slider",
    "langevin_curves",
    "langevin_slider",
    "langevin_walkers",
    "noise_slider",
    "noised",
    "posterior_curves",
    "posterior_slider",
    "predicted_slider",
    "predicted_state",
    "sampler_points",
    "sampler_slider",
    "schedule_curves",
    "schedule_laboratory",
    "schedule_slider",
    "weight_curves",
    "weight_slider",
]
