"""Operations on samples: resizing, augmentation, blur, patches. Imports noise, training."""
