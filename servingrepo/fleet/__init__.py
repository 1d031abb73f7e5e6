"""Several live servers as one: plan, steps, switch, going back, stages."""
