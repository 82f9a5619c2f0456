"""The models: interaction graph, propagation, backbones, training, top-N. Pure torch."""
