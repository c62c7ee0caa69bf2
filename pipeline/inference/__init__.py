"""ANYWHERE. From a trained model to answers: predictor, evaluation and gate, batch scoring, HTTP serving.

All of them go through `pipeline.inference.predictor.Predictor`, which holds the very features of training.
"""
